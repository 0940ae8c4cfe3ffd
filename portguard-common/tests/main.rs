//! The parser and the verdict against what the specifications say, and against laws that no frame may break.

#[cfg(test)]
mod fuzzed;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod links;
#[cfg(test)]
mod support;
#[cfg(test)]
mod vectors;
