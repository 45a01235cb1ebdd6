// The `ai` SDK against `qwen3 serve` with models/demo: node ai_client.mjs URL. Prints a line for each check.
// test_serve_ai.py runs it where the npm packages ai and @ai-sdk/openai-compatible are.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const find = createRequire(process.env.QWEN3_NODE_MODULES + "/");
const load = (name) => import(pathToFileURL(find.resolve(name)));
const { generateText, streamText, embedMany, tool, jsonSchema, Output, stepCountIs } = await load("ai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
const provider = createOpenAICompatible({ name: "qwen3", baseURL: process.argv[2] + "/v1", apiKey: "k",
                                          includeUsage: true, supportsStructuredOutputs: true });
const model = provider("demo");
const prompt = "The red box holds 4711. What does the red box hold?";
const options = { model, prompt, maxRetries: 0 };
const schema = jsonSchema({ type: "object", properties: { a: { type: "integer", minimum: 1, maximum: 9 } },
                            required: ["a"], additionalProperties: false });

function check(what, condition, detail) {
  console.log((condition ? "ok: " : "FAILED: ") + what + (condition ? "" : " " + JSON.stringify(detail)));
}

async function failure(request) {
  try {
    await generateText(request);
  } catch (e) {
    return e;
  }
  return null;
}

const whole = await generateText(options);
check("text", whole.text.length > 3 && whole.finishReason === "stop" && whole.usage.totalTokens > 10, whole);

const stream = streamText(options);
let streamed = "";
for await (const piece of stream.textStream) streamed += piece;
check("stream", streamed === whole.text && (await stream.usage).totalTokens === whole.usage.totalTokens, streamed);

const left = streamText({ ...options, abortSignal: AbortSignal.timeout(1) });
let pieces = 0;
for await (const _ of left.textStream) pieces++;
check("an aborted stream", pieces < 100, pieces);

const box = await generateText({ ...options, output: Output.object({ schema }) });
check("object", box.output.a >= 1 && box.output.a <= 9, box.output);
const boxes = streamText({ ...options, output: Output.object({ schema }) });
let last;
for await (const part of boxes.partialOutputStream) last = part;
check("object stream", last.a === box.output.a, last);

let seen = null;
const look = tool({ description: "Looks into a box.", inputSchema: schema,
                    execute: async (input) => { seen = input; return "4711"; } });
const called = await generateText({ ...options, tools: { look }, stopWhen: stepCountIs(2),
  prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }) });
check("a tool, and the answer to its result", called.steps.length === 2 && seen !== null
  && called.steps[0].toolCalls[0].toolName === "look" && called.steps[0].toolCalls[0].input.a === seen.a, called.steps);
const calls = streamText({ ...options, tools: { look }, toolChoice: { type: "tool", toolName: "look" } });
let inputs = 0;
for await (const part of calls.fullStream) inputs += part.type === "tool-call";
check("tools in a stream", inputs >= 1, inputs);

const vectors = await embedMany({ model: provider.embeddingModel("demo"), values: ["a", "b"], maxRetries: 0 });
check("embeddings", vectors.embeddings.length === 2 && vectors.embeddings[0].length === 128, vectors.usage);
const raw = await generateText({ model: provider.completionModel("demo"), prompt: "The red", maxOutputTokens: 4,
                                 maxRetries: 0 });
check("completion", raw.text.length > 0, raw);
const other = await failure({ model: provider("other"), prompt, maxRetries: 0 });
check("no such model", other && other.statusCode === 404 && /is not here/.test(other.message), other);
const hot = await failure({ ...options, temperature: 3 });
check("bad request", hot && hot.statusCode === 400 && /temperature/.test(hot.message), hot);
