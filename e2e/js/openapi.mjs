// openapi.mjs URL TOKEN FOLDER: checks the OpenAPI document of a server, generates a TypeScript client from it in FOLDER,
// and makes calls with it. Output: one line of JSON with what came of each call.
import { readFile, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Validator } from '@seriousme/openapi-schema-validator'
import openapiTS, { astToString } from 'openapi-typescript'
import ts from 'typescript'

const [url, token, folder] = process.argv.slice(2)
const document = await (await fetch(`${url}/v1/openapi.json`)).json()

const { valid, errors } = await new Validator().validate(structuredClone(document))
if (!valid) throw new Error(`the document is not OpenAPI: ${JSON.stringify(errors)}`)

await writeFile(join(folder, 'schema.d.ts'), astToString(await openapiTS(document)))
const source = join(folder, 'backend.ts')
await writeFile(source, await readFile(new URL('backend.ts', import.meta.url)))
const program = ts.createProgram([source], {
  strict: true,
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  types: [],
})
const problems = [...ts.getPreEmitDiagnostics(program), ...program.emit().diagnostics]
if (problems.length > 0) {
  throw new Error(ts.formatDiagnostics(problems, { getCanonicalFileName: (n) => n, getCurrentDirectory: () => folder, getNewLine: () => '\n' }))
}
const { run } = await import(pathToFileURL(resolve(folder, 'backend.js')))
console.log(JSON.stringify(await run(url, token)))
