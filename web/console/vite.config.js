import { defineConfig } from 'vite'

// Files keep their names, so that a change of the source is a change of the same files; the server says when they are new.
export default defineConfig({
  base: './',
  build: {
    target: 'es2022',
    modulePreload: false,
    assetsInlineLimit: 0,
    rollupOptions: {
      output: { entryFileNames: 'console.js', chunkFileNames: '[name].js', assetFileNames: (asset) => (asset.names[0]?.endsWith('.css') ? 'console.css' : '[name][extname]') },
    },
  },
})
