//! What registry and plugin say to each other (`docs/protocol.md`).
//!
//! [`hello`] describes a plugin, [`call`] is a call's path and headers, [`fault`] every way to fail, [`failure`] a
//! method's own errors, [`life`] activation and its end, [`event`] notifications, [`frame`] the layout of the fast path,
//! [`shm`] that of the memory in which it may run. [`host`] is what a registry says to the program that runs a plugin for it.

pub mod call;
pub mod event;
pub mod failure;
pub mod fault;
pub mod frame;
pub mod hello;
pub mod host;
pub mod life;
pub mod memfd;
pub mod shm;
pub mod sse;

/// The protocol version that this build speaks; v0, the original GoPlug, has no number on the wire.
pub const PROTOCOL: u32 = 1;

/// The deepest nesting of a JSON document that is read from the other side.
pub const MAX_JSON_DEPTH: usize = 64;

/// Whether no object or array of this JSON text is nested deeper than [`MAX_JSON_DEPTH`]; looks at brackets only and
/// says nothing about whether the text is JSON.
pub fn depth_is_bounded(json: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for &byte in json {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_JSON_DEPTH {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}
