//! Exit codes of `fingerpost get`: the numbers of curl.
