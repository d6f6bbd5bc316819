import { defineConfig } from "vite";

// The server that `npm run dev` asks. The built page asks whoever served it.
const SERVER = "http://127.0.0.1:8000";

export default defineConfig({
  base: "/",
  build: {
    outDir: "../server/playground/static",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    rolldownOptions: {
      // Names without hashes: what changes with a build is what a file says. The server sends entity tags.
      output: {
        entryFileNames: "assets/app.js",
        chunkFileNames: "assets/[name].js",
        assetFileNames: "assets/[name][extname]",
      },
    },
  },
  server: { proxy: { "/v2": SERVER } },
  test: { include: ["src/**/*.test.ts"], environment: "node" },
});
