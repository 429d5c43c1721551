// Runs a model with one input, x float32 (rows, columns), and one output, y, in WebAssembly: see test_int8.py.
//     node product.mjs PACKAGES MODEL        reads [[...], ...], writes [[...], ...]
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [packages, model] = process.argv.slice(2);
const require = createRequire(join(packages, 'package.json'));
const web = createRequire(require.resolve('@huggingface/transformers'))('onnxruntime-web');
web.env.wasm.numThreads = 1;
const session = await web.InferenceSession.create(readFileSync(model), { executionProviders: ['wasm'] });
const rows = JSON.parse(readFileSync(0, 'utf-8'));
const x = new web.Tensor('float32', Float32Array.from(rows.flat()), [rows.length, rows[0].length]);
const { y } = await session.run({ x });
console.log(JSON.stringify(rows.map((_, i) => Array.from(y.data.slice(i * y.dims[1], (i + 1) * y.dims[1])))));
