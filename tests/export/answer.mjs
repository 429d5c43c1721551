// Answers questions with a folder that tools/export_onnx.py made, in transformers.js: see test_transformers_js.py.
//     node answer.mjs PACKAGES FOLDER DTYPE IN_WASM
// PACKAGES: the folder in which npm installed. Reads [{question, context}, ...], writes [{answer, score, ids, start,
// end, wasm}, ...]: logits of Node's runtime, and of the first IN_WASM questions those of the one in browsers too.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';

const [packages, folder, dtype, inWasm] = process.argv.slice(2);
const require = createRequire(join(packages, 'package.json'));
const { env, pipeline } = require('@huggingface/transformers');
env.allowRemoteModels = false;
env.localModelPath = dirname(folder);

const web = createRequire(require.resolve('@huggingface/transformers'))('onnxruntime-web');
web.env.wasm.numThreads = 1;
const file = join(folder, 'onnx', { fp32: 'model.onnx', q8: 'model_quantized.onnx' }[dtype]);
const session = await web.InferenceSession.create(readFileSync(file), { executionProviders: ['wasm'] });

async function logitsInWasm(inputs) {
    const tensors = session.inputNames.map((name) => [name, inputs[name]]);
    const feeds = tensors.map(([name, { data, dims }]) => [name, new web.Tensor('int64', data, dims)]);
    const { start_logits, end_logits } = await session.run(Object.fromEntries(feeds));
    return [start_logits, end_logits].map(({ data }) => Array.from(data));
}

const reader = await pipeline('question-answering', basename(folder), { dtype });
const found = [];
for (const { question, context } of JSON.parse(readFileSync(0, 'utf-8'))) {
    const inputs = await reader.tokenizer(question, { text_pair: context, padding: true, truncation: true });
    const { start_logits, end_logits } = await reader.model(inputs);
    const [ids, start, end] = [inputs.input_ids, start_logits, end_logits].map(({ data }) => Array.from(data, Number));
    const wasm = found.length < inWasm ? await logitsInWasm(inputs) : null;
    found.push({ ...(await reader(question, context)), ids, start, end, wasm });
}
console.log(JSON.stringify(found));
