"""The network in other forms: exported and compiled, each compared with the original before it is used."""
