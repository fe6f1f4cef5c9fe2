"""From pipeline_ex files to Headrace pipelines, with a report of every difference in meaning. Executes nothing."""
