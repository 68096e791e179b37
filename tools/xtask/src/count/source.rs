// SPDX-License-Identifier: MIT OR Apache-2.0
//! One file: its lines of code without tests, and what of it is unsafe.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use anyhow::Result;
use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// How far above an unsafe place its argument may begin, lines.
const NEAR: usize = 12;

/// What was counted in a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Source {
    /// Lines of code.
    pub(super) code: usize,
    /// Of these, in unsafe blocks, functions and implementations.
    pub(super) unsafe_lines: usize,
    /// How many of the latter there are.
    pub(super) unsafe_places: usize,
    /// How many of them have an argument.
    pub(super) argued: usize,
    /// Lines of those without.
    pub(super) unargued: Vec<usize>,
    /// Names of modules in files of their own that are there for tests only.
    pub(super) test_modules: Vec<String>,
}

impl Source {
    /// Counts.
    pub(super) fn read(text: &str) -> Result<Self> {
        let mut tree = Tree::default();
        tree.visit_file(&syn::parse_file(text)?);
        let mut code = code_lines(text);
        for range in &tree.tests {
            code.retain(|line| !range.contains(line));
        }
        let lines: Vec<&str> = text.lines().collect();
        let in_test = |line: usize| tree.tests.iter().any(|range| range.contains(&line));
        let places: Vec<_> = tree.places.iter().filter(|place| !in_test(*place.lines.start())).collect();
        let unsafe_lines = code.iter().filter(|line| places.iter().any(|place| place.lines.contains(line))).count();
        let (argued, unargued): (Vec<&Place>, Vec<&Place>) =
            places.iter().copied().partition(|place| place.is_argued(&lines));
        Ok(Self {
            test_modules: tree.test_modules.clone(),
            code: code.len(),
            unsafe_lines,
            unsafe_places: places.len(),
            argued: argued.len(),
            unargued: unargued.iter().map(|place: &&Place| *place.lines.start()).collect(),
        })
    }
}

impl Source {
    /// The beginnings of the paths of modules that are there for tests only, if this is the file at `path`.
    pub(super) fn test_files(&self, path: &str) -> Vec<String> {
        let stem = path.strip_suffix(".rs").unwrap_or(path);
        let folder = ["/lib", "/main", "/mod"].iter().find_map(|own| stem.strip_suffix(own)).unwrap_or(stem);
        self.test_modules.iter().flat_map(|name| [".rs", "/"].map(|end| format!("{folder}/{name}{end}"))).collect()
    }
}

/// Something unsafe.
struct Place {
    lines: RangeInclusive<usize>,
    /// Its documentation must have a section `# Safety`, and has.
    documented: Option<bool>,
}

impl Place {
    /// A block or implementation has a comment before it, or before the statement that it is in.
    fn is_argued(&self, lines: &[&str]) -> bool {
        if let Some(documented) = self.documented {
            return documented;
        }
        let first = self.lines.start() - 1;
        for (distance, line) in lines[..=first].iter().rev().enumerate().take(NEAR) {
            if line.contains("SAFETY:") {
                return true;
            }
            let line = line.trim();
            let is_comment = line.starts_with("//") || line.starts_with('#');
            let is_other_statement = line.is_empty() || line.ends_with([';', '}']);
            if distance > 0 && !is_comment && is_other_statement {
                return false;
            }
        }
        false
    }
}

/// What the syntax tree says of lines.
#[derive(Default)]
struct Tree {
    tests: Vec<RangeInclusive<usize>>,
    /// Modules in files of their own that are there for tests only.
    test_modules: Vec<String>,
    places: Vec<Place>,
    /// In the implementation of a trait, which says itself what its unsafe functions demand.
    in_trait: bool,
}

fn lines_of(span: Span) -> RangeInclusive<usize> {
    span.start().line..=span.end().line
}

/// Whether something is compiled for tests only: `cfg(test)`, or `cfg(all(…, test, …))`.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        attribute.parse_args::<syn::Meta>().is_ok_and(|condition| match condition {
            syn::Meta::Path(path) => path.is_ident("test"),
            syn::Meta::List(list) => {
                list.path.is_ident("all") && list.tokens.to_string().split(',').any(|t| t.trim() == "test")
            }
            syn::Meta::NameValue(_) => false,
        })
    })
}

fn has_safety_section(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => text.value().trim() == "# Safety",
            _ => false,
        },
        _ => false,
    })
}

impl Tree {
    fn place(&mut self, span: Span, documented: Option<bool>) {
        self.places.push(Place { lines: lines_of(span), documented });
    }

    fn function(&mut self, signature: &syn::Signature, attributes: &[syn::Attribute], span: Span) {
        if signature.unsafety.is_some() {
            self.place(span, Some(has_safety_section(attributes)));
        }
    }
}

impl<'ast> Visit<'ast> for Tree {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::ExternCrate(item) => &item.attrs,
            syn::Item::Const(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if is_test(attributes) {
            if let syn::Item::Mod(module) = item
                && module.content.is_none()
            {
                self.test_modules.push(module.ident.to_string());
            }
            self.tests.push(lines_of(item.span()));
        }
        visit::visit_item(self, item);
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.place(block.span(), None);
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if item.unsafety.is_some() {
            self.place(item.span(), None);
        }
        let outside = std::mem::replace(&mut self.in_trait, item.trait_.is_some());
        visit::visit_item_impl(self, item);
        self.in_trait = outside;
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.attrs, item.span());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !self.in_trait {
            self.function(&item.sig, &item.attrs, item.span());
        } else if item.sig.unsafety.is_some() {
            self.place(item.span(), Some(true));
        }
        visit::visit_impl_item_fn(self, item);
    }
}

/// Numbers of the lines that have something on them which is neither blank nor comment; in a string that goes over lines, all of them.
fn code_lines(text: &str) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut state = State::Code;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            if matches!(state, State::Text | State::Raw(_)) {
                found.insert(number);
            }
            continue;
        }
        let (after, is_code) = state.line(line);
        state = after;
        if is_code {
            found.insert(number);
        }
    }
    found
}

/// In what a line begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    /// Comments nest.
    Comment(usize),
    Text,
    /// A raw string with so many `#`.
    Raw(usize),
}

impl State {
    /// In what the next line begins, and whether this one has code.
    fn line(self, line: &str) -> (Self, bool) {
        let bytes = line.as_bytes();
        let (mut state, mut code, mut at) = (self, !matches!(self, Self::Comment(_)), 0);
        if matches!(self, Self::Code) {
            code = false;
        }
        while at < bytes.len() {
            let rest = &bytes[at..];
            let (next, length) = state.step(rest, at.checked_sub(1).map(|before| bytes[before]));
            code |= !matches!(state, Self::Comment(_))
                && next != Self::Comment(0)
                && !rest[0].is_ascii_whitespace()
                && !matches!(next, Self::Comment(_));
            if next == Self::Comment(0) {
                return (Self::Code, code);
            }
            (state, at) = (next, at + length);
        }
        (state, code)
    }

    /// What comes next, and how many bytes it takes. A line comment is a comment of depth 0.
    fn step(self, rest: &[u8], before: Option<u8>) -> (Self, usize) {
        let begins = |with: &[u8]| rest.starts_with(with);
        match self {
            Self::Comment(depth) if begins(b"*/") => {
                (if depth == 1 { Self::Code } else { Self::Comment(depth - 1) }, 2)
            }
            Self::Comment(depth) if begins(b"/*") => (Self::Comment(depth + 1), 2),
            Self::Text if begins(b"\\") => (self, 2),
            Self::Text if begins(b"\"") => (Self::Code, 1),
            Self::Raw(marks) if begins(b"\"") && rest[1..].iter().take_while(|b| **b == b'#').count() >= marks => {
                (Self::Code, 1 + marks)
            }
            Self::Code if begins(b"//") => (Self::Comment(0), rest.len()),
            Self::Code if begins(b"/*") => (Self::Comment(1), 2),
            // A quotation mark as a character, and not the string that it would begin.
            Self::Code if begins(b"'\"'") => (self, 3),
            Self::Code if begins(b"'\\\"'") => (self, 4),
            Self::Code
                if begins(b"r") && !before.is_some_and(|b| b.is_ascii_alphanumeric() && b != b'b' || b == b'_') =>
            {
                let marks = rest[1..].iter().take_while(|b| **b == b'#').count();
                if rest.get(1 + marks) == Some(&b'"') { (Self::Raw(marks), 2 + marks) } else { (self, 1) }
            }
            Self::Code if begins(b"\"") => (Self::Text, 1),
            _ => (self, 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Source, code_lines};

    fn count(text: &str) -> usize {
        code_lines(text).len()
    }

    #[test]
    fn blank_lines_and_comments_are_no_code() {
        assert_eq!(count("\n  \n// x\n/// y\n//! z\n/* a\n b */\n"), 0);
        assert_eq!(count("fn f() {} // x\n/* a */ fn g() {}\n/* a\n b */ fn h() {}\n"), 3);
        assert_eq!(count("/* a /* b */ c\n*/\nlet x = 1;\n"), 1);
    }

    #[test]
    fn strings_are_code_whatever_is_in_them() {
        assert_eq!(count("let x = \"// no comment /*\";\nlet y = 1;\n"), 2);
        assert_eq!(count("asm(r#\"\n  /* code */\n\n  \"x\"\n\"#);\n// c\n"), 5);
        assert_eq!(count("let c = '\"'; // c\n// d\nlet d = '\\\"';\n// e\n"), 2);
        assert_eq!(count("let x = \"a \\\"\n// b\";\n// c\n"), 2);
    }

    #[test]
    fn tests_are_left_out() {
        let modules =
            Source::read("#[cfg(test)]\nmod model;\n#[cfg(all(test, not(loom)))]\nmod m;\nmod n;\n").expect("Rust");
        assert_eq!(modules.test_modules, ["model", "m"]);
        assert_eq!(modules.code, 1);
        assert_eq!(modules.test_files("a/src/lib.rs")[..2], ["a/src/model.rs", "a/src/model/"]);
        assert_eq!(modules.test_files("a/src/radix.rs")[0], "a/src/radix/model.rs");
        let text = "fn f() {}\n#[cfg(test)]\nmod tests {\n    fn g() { unsafe { h() } }\n}\n";
        let source = Source::read(text).expect("Rust");
        assert_eq!((source.code, source.unsafe_places), (1, 0));
    }

    #[test]
    fn unsafe_places_and_their_arguments() {
        let text = "
/// Does it.
///
/// # Safety
/// The caller knows.
unsafe fn f() {
    g();
}

/// Does it.
unsafe fn undocumented() {}

// SAFETY: it is.
unsafe impl Send for X {}

fn h() {
    // SAFETY: as above.
    let x = unsafe { f() };
    k();
    let y = unsafe { f() };
    // SAFETY: the statement is what counts.
    let z = m(
        1,
        unsafe { f() },
    );
}
";
        let source = Source::read(text).expect("Rust");
        assert_eq!((source.unsafe_places, source.argued), (6, 4));
        assert_eq!(source.unargued, [10, 20]);
        assert_eq!(source.unsafe_lines, 3 + 1 + 1 + 1 + 1 + 1);
        assert_eq!(source.code, 14);
    }
}
