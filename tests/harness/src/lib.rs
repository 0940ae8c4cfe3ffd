//! What the integration tests and the demo stand on.
//!
//! - [`net`]: private network namespaces, veth links between them, closures and commands inside them;
//! - [`frames`]: frames of every shape, well-formed and hostile, by hand or generated from a seed;
//! - [`clock`]: CPU time, for tests of what grows with what;
//! - [`traffic`]: what hosts say to each other, each function bounded in time.
//!
//! Nothing here touches the machine's own network. Making namespaces takes root; frames do not.

pub mod clock;
pub mod frames;
pub mod net;
pub mod traffic;
