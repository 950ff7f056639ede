//! Where a source names a crate: by its text, comments left out.

/// The numbers, from 1, of the lines of Rust `text` that name the crate `name` in a path or in a `use`.
pub(super) fn lines_naming(text: &str, name: &str) -> Vec<usize> {
    let lines = text.lines().enumerate();
    lines.filter(|(_, line)| names(line.split("//").next().unwrap_or_default(), name)).map(|(n, _)| n + 1).collect()
}

fn names(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + name.len()..]);
        // Part of a longer word, a field, a method, or a module of ours below another.
        if before.ends_with(is_word) || before.ends_with('.') || after.starts_with(is_word) {
            return false;
        }
        let is_first = before.strip_suffix("::").is_none_or(|path| !path.ends_with(is_word));
        let statement = before.trim().trim_end_matches("::").trim_end();
        let is_use = statement.ends_with("use") || statement.ends_with("extern crate");
        let ends = after.trim_start().starts_with(';') || after.trim_start().starts_with("as ");
        is_first && (after.starts_with("::") || is_use && ends)
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_is_told_from_words_like_it() {
        for code in
            ["use notify::Watcher;", "fn f(w: ::notify::X)", "use notify;", "use notify as n;", "x(notify::y())"]
        {
            assert_eq!(lines_naming(code, "notify"), [1], "{code}");
        }
        for code in [
            "self.notify();",
            "crate::notify::x()",
            "use super::notify::X;",
            "my_notify::x()",
            "notify_acked::x()",
            "mod notify;",
            "// notify::x",
            "x(); // as notify::Watcher does",
            "let notify = 1;",
        ] {
            assert_eq!(lines_naming(code, "notify"), [0; 0], "{code}");
        }
        assert_eq!(lines_naming("a\nuse axum::x;\n", "axum"), [2]);
    }
}
