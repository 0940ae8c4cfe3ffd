//! Which of two Debian package names is the newer: numbers compare as numbers.

use std::cmp::Ordering;

/// Compares as `sort -V` does, as far as package names of kernels need.
pub(super) fn compare(left: &str, right: &str) -> Ordering {
    pieces(left).cmp(&pieces(right))
}

/// Runs of digits, and what is between them. A tilde sorts before the end, as Debian has it.
fn pieces(text: &str) -> Vec<(u8, u64, &str)> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_digit = first.is_ascii_digit();
        let end = rest
            .find(|char: char| char.is_ascii_digit() != is_digit)
            .unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        pieces.push(match piece.parse() {
            Ok(number) if is_digit => (2, number, ""),
            _ if piece.starts_with('~') => (0, 0, piece),
            _ => (1, 0, piece),
        });
        rest = after;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::compare;

    #[test]
    fn numbers_compare_as_numbers() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
        ];
        assert!(compare(names[0], names[1]).is_lt());
        assert!(compare("linux-binary-7.0.12+deb13", "linux-binary-7.3.4+deb13").is_lt());
        assert!(compare("6.12.43+deb12", "6.12.117+deb12").is_lt());
        assert!(compare("6.12", "6.12").is_eq());
    }
}
