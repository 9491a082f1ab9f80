package selftest

const getpgidSymbol = "__x64_sys_getpgid"
