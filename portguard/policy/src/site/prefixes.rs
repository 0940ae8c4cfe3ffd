//! Prefix files: one prefix or address a line, `#` begins a comment. What ASN peers and other long lists come from.

use ipnet::IpNet;

use super::term;
use crate::diagnostic::{Diagnostic, Rejected};

/// More messages than this help nobody.
const MAX_MESSAGES: usize = 20;

/// Reads a prefix file's bytes; `file` is its name in messages.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Vec<IpNet>, Rejected> {
    if bytes.len() > super::MAX_BYTES {
        let message = format!(
            "the file has {} bytes, more than {}",
            bytes.len(),
            super::MAX_BYTES
        );
        return Err(Rejected(vec![
            Diagnostic::error("too-large", message).at(file),
        ]));
    }
    let mut nets = Vec::new();
    let mut messages = Vec::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let place = format!("{file}:{}", number + 1);
        let Ok(line) = std::str::from_utf8(line) else {
            messages.push(Diagnostic::error("invalid-utf8", "the line is not UTF-8").at(place));
            continue;
        };
        let word = line.split('#').next().unwrap_or_default().trim();
        if word.is_empty() {
            continue;
        }
        match term::prefix(word) {
            Ok(net) => nets.push(net),
            Err(fault) => {
                messages.push(
                    Diagnostic::error(fault.code, fault.message)
                        .at(place)
                        .hint(fault.hint),
                );
            }
        }
        if messages.len() >= MAX_MESSAGES {
            break;
        }
    }
    if nets.is_empty() && messages.is_empty() {
        messages.push(Diagnostic::error("empty-file", "the file has no prefix").at(file));
    }
    if messages.is_empty() {
        Ok(nets)
    } else {
        Err(Rejected(messages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_are_skipped_and_faults_have_lines() {
        let nets = parse("f", b"# list\n10.0.0.0/8 # ours\n\n2001:db8::1\n").unwrap();
        assert_eq!(nets.len(), 2);
        let rejected = parse("f", b"10.0.0.0/8\n10.0.0.1/8\n\xff\n").unwrap_err();
        assert_eq!(
            rejected.to_string(),
            "f:2: error[bad-prefix]: `10.0.0.1/8` has host bits set\n  hint: write `10.0.0.0/8`, or `10.0.0.1` for the single address\n\
             f:3: error[invalid-utf8]: the line is not UTF-8"
        );
        assert_eq!(
            parse("f", b"\n").unwrap_err().to_string(),
            "f: error[empty-file]: the file has no prefix"
        );
    }
}
