import assert from 'node:assert/strict'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'

// What a page loads, in bytes, and what it may be.
for (const [entry, most] of [['index.js', 5120], ['react.js', 1000], ['durable.js', 1000], ['sse.js', 4250]]) {
  test(`${entry} has at most ${most} bytes, bundled and compressed`, async (t) => {
    const { outputFiles } = await build({
      entryPoints: [`dist/${entry}`], bundle: true, minify: true, format: 'esm', write: false, external: entry === 'react.js' ? ['react', './index.js'] : [],
    })
    const size = gzipSync(outputFiles[0].contents, { level: 9 }).length
    t.diagnostic(`${entry}: ${size} bytes`)
    assert.ok(size <= most, `${size} bytes`)
  })
}
