"""Local servers that speak the providers' real wires. What they say is held to the SDKs' own strict models."""
