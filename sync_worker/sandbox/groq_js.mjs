// Re-exports groq-js from the address that the caller passes as the first argument. It may be beside this file or in a
// per-user cache folder, so its place is only known at run time.

export const {parse, evaluate, evaluateSync} = await import(process.argv[2])
