// Why it exists: groq-js may live beside this file or in a per-user cache folder, and an ES module cannot be told
// where to look. The caller passes the address of its entry as the first argument; everybody else imports it from here.

export const {parse, evaluate, evaluateSync} = await import(process.argv[2])
