//! The paths into the crate that a source file names, in `use` lines and elsewhere.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path that a file names.
pub(crate) struct Import {
    /// The line of its first segment.
    pub(crate) line: usize,
    /// The path from the root of the crate.
    pub(crate) path: Vec<String>,
}

/// The imports in the `text` of a file that contains the module `module`. Code under `#[cfg(test)]` is skipped.
pub(crate) fn imports(text: &str, module: &[&str]) -> Vec<Import> {
    let tokens: TokenStream = text.parse().expect("the file is Rust");
    let mut found = Vec::new();
    let module: Vec<String> = module.iter().map(|&name| name.to_owned()).collect();
    walk(&tokens.into_iter().collect::<Vec<_>>(), &module, &mut found);
    found
}

fn walk(tokens: &[TokenTree], module: &[String], found: &mut Vec<Import>) {
    let mut at = 0;
    let mut is_use = false;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            TokenTree::Punct(sign) if sign.as_char() == '#' && is_cfg_test(tokens.get(at)) => {
                at += 1;
                at += item_length(&tokens[at..]);
            }
            TokenTree::Punct(sign) if sign.as_char() == ';' => is_use = false,
            TokenTree::Ident(word) if word == "use" => is_use = true,
            // `pub(in path)` names a path without an import.
            TokenTree::Ident(word) if word == "pub" => at += usize::from(is_parenthesis(tokens.get(at))),
            TokenTree::Ident(word) => {
                let is_first = !tokens[..at - 1].ends_with_path();
                let start = match word.to_string().as_str() {
                    "crate" if is_first => Some((Vec::new(), at)),
                    "self" | "super" if is_first => relative(tokens, at - 1, module),
                    // Without a prefix, a `use` names a child of its module or another crate. A child is no violation
                    // unless the module is the root of a folder.
                    _ if is_use && is_first => Some((module.to_vec(), at - 1)),
                    _ => None,
                };
                if let Some((path, next)) = start {
                    at = tree(tokens, next, &path, word.span().start().line, found);
                }
            }
            TokenTree::Group(group) => {
                walk(&group.stream().into_iter().collect::<Vec<_>>(), module, found);
            }
            _ => {}
        }
    }
}

trait EndsWithPath {
    fn ends_with_path(&self) -> bool;
}

impl EndsWithPath for [TokenTree] {
    /// Whether the next word continues a path.
    fn ends_with_path(&self) -> bool {
        let is_colon = |token: &TokenTree| matches!(token, TokenTree::Punct(sign) if sign.as_char() == ':');
        self.len() >= 2 && self[self.len() - 2..].iter().all(is_colon)
    }
}

/// The module that `self::` and `super::` lead to, and the index of the next segment.
fn relative(tokens: &[TokenTree], mut at: usize, module: &[String]) -> Option<(Vec<String>, usize)> {
    let mut path = module.to_vec();
    let mut has_moved = false;
    while let Some(TokenTree::Ident(word)) = tokens.get(at) {
        match word.to_string().as_str() {
            "super" => drop(path.pop()),
            "self" => {}
            _ => break,
        }
        has_moved = tokens[..(at + 3).min(tokens.len())].ends_with_path();
        at += if has_moved { 3 } else { 1 };
    }
    has_moved.then_some((path, at))
}

/// Reads the rest of a path or of a tree of paths, and returns the index of the token behind it.
fn tree(
    tokens: &[TokenTree],
    mut at: usize,
    prefix: &[String],
    line: usize,
    found: &mut Vec<Import>,
) -> usize {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(at) {
        match token {
            TokenTree::Punct(sign) if sign.as_char() == ':' => {}
            TokenTree::Ident(word) if path.len() == prefix.len() || tokens[..at].ends_with_path() => {
                if word != "self" {
                    path.push(word.to_string());
                }
            }
            TokenTree::Group(group)
                if group.delimiter() == Delimiter::Brace && tokens[..at].ends_with_path() =>
            {
                let inner: Vec<_> = group.stream().into_iter().collect();
                let is_comma =
                    |token: &TokenTree| matches!(token, TokenTree::Punct(sign) if sign.as_char() == ',');
                for branch in inner.split(is_comma).filter(|branch| !branch.is_empty()) {
                    tree(branch, 0, &path, line, found);
                }
                return at + 1;
            }
            _ => break,
        }
        at += 1;
    }
    found.push(Import { line, path });
    at
}

fn is_parenthesis(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis)
}

fn is_cfg_test(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.stream().to_string().replace(' ', "") == "cfg(test)")
}

/// The number of tokens of the item at the start: up to a semicolon or a block.
fn item_length(tokens: &[TokenTree]) -> usize {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Punct(sign) => sign.as_char() == ';',
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        _ => false,
    };
    tokens.iter().position(is_end).map_or(tokens.len(), |end| end + 1)
}
