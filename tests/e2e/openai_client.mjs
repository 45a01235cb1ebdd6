// OpenAI's own client against `qwen3 serve` with models/demo: node openai_client.mjs URL. Prints a line for each check.
// test_serve_openai.py runs it where the npm package openai is.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const find = createRequire(process.env.QWEN3_NODE_MODULES + "/");
const { default: OpenAI } = await import(pathToFileURL(find.resolve("openai")));
const client = new OpenAI({ baseURL: process.argv[2] + "/v1", apiKey: "k", maxRetries: 0 });
const model = "demo";
const messages = [{ role: "user", content: "The red box holds 4711. What does the red box hold?" }];
const tools = [{ type: "function", function: { name: "f", parameters: { type: "object", properties: {} } } }];

function check(what, condition, detail) {
  console.log((condition ? "ok: " : "FAILED: ") + what + (condition ? "" : " " + JSON.stringify(detail)));
}

async function fails(kind, request) {
  try {
    await client.chat.completions.create(request);
  } catch (e) {
    return e instanceof kind && typeof e.error.message === "string" ? e : null;
  }
  return null;
}

const whole = await client.chat.completions.create({ model, messages });
const text = whole.choices[0].message.content;
check("chat", text.length > 3 && whole.usage.total_tokens > 10, whole);

let streamed = "", usage;
const chunks = await client.chat.completions.create(
  { model, messages, stream: true, stream_options: { include_usage: true } });
for await (const chunk of chunks) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
check("stream", streamed === text && usage.completion_tokens === whole.usage.completion_tokens, [streamed, usage]);
check("stream helper", await client.chat.completions.stream({ model, messages }).finalContent() === text);

const left = await client.chat.completions.create({ model, messages, stream: true });
for await (const chunk of left) {
  check("first chunk", chunk.choices[0].delta.role === "assistant", chunk);
  left.controller.abort();
  break;
}

const called = await client.chat.completions.create({ model, messages, tools, tool_choice: "auto" });
check("tools", called.choices[0].finish_reason.length > 0, called);
const sampled = await client.chat.completions.create(
  { model, messages, n: 3, seed: 5, temperature: 1, max_completion_tokens: 8, stop: ["\n"], logprobs: true,
    top_logprobs: 2 });
check("n, logprobs", sampled.choices.length === 3
  && sampled.choices[0].logprobs.content[0].top_logprobs.length === 2, sampled);
const vectors = await client.embeddings.create({ model, input: ["a", "b"] }); // the client wants base64, and decodes it
check("embeddings", vectors.data.length === 2 && vectors.data[0].embedding.length === 128, vectors.usage);
const response = await client.responses.create({ model, input: messages });
check("response", response.output_text === text && response.status === "completed"
  && response.usage.total_tokens === whole.usage.total_tokens, response);
let pieces = "", last;
for await (const event of await client.responses.create({ model, input: messages, stream: true })) {
  if (event.type === "response.output_text.delta") pieces += event.delta;
  last = event;
}
check("response stream", pieces === text && last.type === "response.completed"
  && last.response.usage.output_tokens === response.usage.output_tokens, last);
const helped = await client.responses.stream({ model, input: messages, instructions: "Be brief." }).finalResponse();
check("response stream helper", helped.output_text.length > 3 && helped.output.at(-1).status === "completed", helped);
const parameters = { type: "object", properties: { a: { type: "integer", minimum: 1, maximum: 9 } }, required: ["a"],
                     additionalProperties: false };
const calls = await client.responses.stream({ model, input: messages, tool_choice: "required",
  parallel_tool_calls: false, tools: [{ type: "function", name: "f", strict: true, parameters }] }).finalResponse();
const call = calls.output.find((item) => item.type === "function_call");
check("response calls", call && call.name === "f" && JSON.parse(call.arguments).a > 0, calls);
const next = await client.responses.create({ model, input: [...messages, ...calls.output,
  { type: "function_call_output", call_id: call.call_id, output: "4711" }] });
check("response to a call", next.status === "completed", next);
const parsed = await client.responses.parse({ model, input: messages,
  text: { format: { type: "json_schema", name: "a", strict: true, schema: parameters } } });
check("response format", parsed.output_parsed.a > 0, parsed);
const raw = await client.completions.create({ model, prompt: "The red", max_tokens: 4 });
check("completions", raw.choices[0].text.length > 0, raw);
check("models", (await client.models.list()).data[0].id === model
  && (await client.models.retrieve(model)).id === model);
const bad = await fails(OpenAI.BadRequestError, { model, messages, response_format: { type: "xml" } });
check("bad request", bad && bad.param === "response_format", bad);
let stored = null;
try { await client.responses.create({ model, input: messages, previous_response_id: "resp_1" }); } catch (e) { stored = e; }
check("no stored responses", stored instanceof OpenAI.BadRequestError && stored.param === "previous_response_id", stored);
check("no such model", await fails(OpenAI.NotFoundError, { model: "other", messages }));
