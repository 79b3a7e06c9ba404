"""A study is one profile: every number that shapes its results, checked before work starts."""
