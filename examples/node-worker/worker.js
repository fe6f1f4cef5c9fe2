// A tool worker in another language: NATS request/reply, the NATS service protocol, and one registration.
//
//   headrace up
//   npm ci && NATS_URL=$(sed -n 's/.*"url": *"\([^"]*\)".*/\1/p' ../../.headrace/endpoint) node worker.js

import { connect } from "@nats-io/transport-node";

const TENANT = process.env.HEADRACE_TENANT ?? "default";
const SPEC = {
  tool: "node.slug",
  version: "1",
  description: "A title as it stands in a URL.",
  args: {
    type: "object",
    properties: { title: { type: "string" }, separator: { type: "string", maxLength: 1, default: "-" } },
    required: ["title"],
    additionalProperties: false,
  },
  result: { type: "string" },
  effect: "pure",
  risk: "read",
  timeout_ms: 5000,
  endpoint: `nats:tools.${TENANT}.node-slug.1`,
};

function slug({ title, separator = "-" }) {
  const words = title.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase().match(/[a-z0-9]+/g);
  if (words === null) {
    throw Object.assign(new Error("the title has no letter and no digit"), { code: "no_words", retryable: false });
  }
  return words.join(separator);
}

// A call is {id, tenant, data, timeout_ms}; an answer is {data} or {error: {code, message, retryable}}.
function answer(message) {
  try {
    return { data: slug(message.json().data) };
  } catch (error) {
    const { code = "tool_crashed", retryable = true } = error;
    return { error: { code, message: String(error.message), retryable } };
  }
}

const nc = await connect({ servers: process.env.NATS_URL, name: "node-worker" });
const id = `node-worker-${process.pid}`;
const subject = SPEC.endpoint.slice("nats:".length);

// All workers of a tool are in one queue group: each call goes to one of them.
nc.subscribe(subject, {
  queue: "workers",
  callback: (error, message) => error === null && message.respond(JSON.stringify(answer(message))),
});

// The service protocol (ADR-32), so that `nats micro ls` and `nats micro info` show it.
const about = { name: "node-worker", id, version: "1.0.0", metadata: {} };
const endpoints = [{ name: "slug", subject, queue_group: "workers", metadata: { tool: SPEC.tool } }];
for (const [verb, more] of [["PING", {}], ["INFO", { description: SPEC.description, endpoints }]]) {
  const said = JSON.stringify({ type: `io.nats.micro.v1.${verb.toLowerCase()}_response`, ...about, ...more });
  for (const who of ["", ".node-worker", `.node-worker.${id}`]) {
    nc.subscribe(`$SRV.${verb}${who}`, { callback: (error, message) => error === null && message.respond(said) });
  }
}

const request = JSON.stringify({ id: id, tenant: TENANT, data: SPEC });
const reply = (await nc.request("hr.api.tool-registry.register", request, { timeout: 5000 })).json();
if (reply.error) {
  console.error(`${SPEC.tool} ${SPEC.version}: ${reply.error.code}: ${reply.error.message}`);
  process.exit(65);
}
console.log(`serving ${SPEC.tool} ${SPEC.version}`);

process.on("SIGTERM", () => nc.drain());
await nc.closed();
