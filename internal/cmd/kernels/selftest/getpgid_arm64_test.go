package selftest

const getpgidSymbol = "__arm64_sys_getpgid"
