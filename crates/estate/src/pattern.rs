//! Which keys a scan is about: one key, a glob or a regular expression.
//!
//! Globs are those of Redis, on characters: `*` any run of characters (`/` too), `?` one,
//! `[abc]`, `[a-z]`, `[^a]` one of a set, `\` takes the next character as it is. A regular
//! expression has to match the whole key. Both run in time linear in the key, whatever the
//! pattern: there is no backtracking, and the compiled size is bounded.

use crate::codec::{Malformed, Reader, put_bytes};
use crate::error::{Error, shown};
use regex::{Regex, RegexBuilder};
use std::fmt;

/// The longest pattern, bytes.
pub const PATTERN_MAX: usize = 4096;
/// Memory of a compiled pattern and of each of its caches, bytes.
const COMPILED_MAX: usize = 1 << 20;

/// A set of keys.
#[derive(Clone)]
pub struct Pattern {
    text: Box<str>,
    matcher: Matcher,
}

#[derive(Clone)]
enum Matcher {
    Exact,
    All,
    // The frequent globs, without the engine.
    Prefix(Box<str>),
    Suffix(Box<str>),
    Around(Box<str>, Box<str>),
    Glob(Regex),
    Regex(Regex),
}

impl Pattern {
    /// Just this key.
    pub fn exact(key: &str) -> Self {
        Self {
            text: key.into(),
            matcher: Matcher::Exact,
        }
    }

    /// Every key.
    pub fn all() -> Self {
        Self {
            text: "*".into(),
            matcher: Matcher::All,
        }
    }

    /// A glob.
    ///
    /// # Errors
    /// [`Error::Pattern`] for a set without end, a `\` at the end, or one that is too long.
    pub fn glob(text: &str) -> Result<Self, Error> {
        let refuse = |why: String| Error::Pattern {
            kind: "glob",
            shown: shown(text),
            why,
        };
        bounded(text).map_err(refuse)?;
        Ok(Self {
            text: text.into(),
            matcher: match text.matches('*').count() {
                _ if text.contains(['?', '[', '\\']) => Matcher::Glob(
                    compile(&translate(text).map_err(|why| refuse(why.into()))?).map_err(refuse)?,
                ),
                1 if text == "*" => Matcher::All,
                1 => match text.split_once('*') {
                    Some((head, "")) => Matcher::Prefix(head.into()),
                    Some(("", tail)) => Matcher::Suffix(tail.into()),
                    Some((head, tail)) => Matcher::Around(head.into(), tail.into()),
                    None => unreachable!("one star was counted"),
                },
                0 => Matcher::Exact,
                _ => Matcher::Glob(
                    compile(&translate(text).map_err(|why| refuse(why.into()))?).map_err(refuse)?,
                ),
            },
        })
    }

    /// A regular expression that has to match the whole key (syntax of the `regex` crate: no
    /// look-around, no back-references).
    ///
    /// # Errors
    /// [`Error::Pattern`] if it is none, too long or too big once compiled.
    pub fn regex(text: &str) -> Result<Self, Error> {
        let refuse = |why: String| Error::Pattern {
            kind: "regex",
            shown: shown(text),
            why,
        };
        bounded(text).map_err(refuse)?;
        let regex = compile(text).map_err(refuse)?;
        Ok(Self {
            text: text.into(),
            matcher: Matcher::Regex(regex),
        })
    }

    /// Whether `key` is in the set.
    #[inline]
    pub fn matches(&self, key: &str) -> bool {
        match &self.matcher {
            Matcher::Exact => *self.text == *key,
            Matcher::All => true,
            Matcher::Prefix(head) => key.starts_with(&**head),
            Matcher::Suffix(tail) => key.ends_with(&**tail),
            Matcher::Around(head, tail) => {
                key.len() >= head.len() + tail.len()
                    && key.starts_with(&**head)
                    && key.ends_with(&**tail)
            }
            Matcher::Glob(regex) | Matcher::Regex(regex) => regex.is_match(key),
        }
    }

    /// The one key, if that is all.
    pub fn as_exact(&self) -> Option<&str> {
        matches!(self.matcher, Matcher::Exact).then_some(&*self.text)
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `exact`, `glob` or `regex`.
    pub fn kind(&self) -> &'static str {
        match self.matcher {
            Matcher::Exact => "exact",
            Matcher::Regex(_) => "regex",
            _ => "glob",
        }
    }

    /// Appends the pattern as it travels: a kind byte (0 exact, 1 glob, 2 regex), then the text.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.push(match self.matcher {
            Matcher::Exact => 0,
            Matcher::Regex(_) => 2,
            _ => 1,
        });
        put_bytes(out, self.text.as_bytes());
    }

    /// Reads what [`Pattern::emit`] wrote, and compiles it.
    ///
    /// # Errors
    /// [`Malformed`] if it is cut short or no pattern.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let start = reader.offset();
        let kind = reader.u8("a pattern's kind")?;
        let text = reader.str("a pattern")?;
        let fault = |_| reader.fault(start, "a pattern", "it does not compile");
        match kind {
            0 => Ok(Self::exact(text)),
            1 => Self::glob(text).map_err(fault),
            2 => Self::regex(text).map_err(fault),
            _ => Err(reader.fault(start, "a pattern's kind", "it is none of 0 to 2")),
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:?})", self.kind(), self.text)
    }
}

fn bounded(text: &str) -> Result<(), String> {
    if text.len() > PATTERN_MAX {
        return Err(format!(
            "it has {} bytes, the most is {PATTERN_MAX}",
            text.len()
        ));
    }
    Ok(())
}

/// `expression`, anchored at both ends.
fn compile(expression: &str) -> Result<Regex, String> {
    // Compiled alone first: `a)|(b` must not become valid by the brackets around it.
    let build = |text: &str| {
        RegexBuilder::new(text)
            .size_limit(COMPILED_MAX)
            .dfa_size_limit(COMPILED_MAX)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(most) => {
                    format!("it takes more than {most} bytes once compiled; make it shorter")
                }
                other => other
                    .to_string()
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim_start_matches("error: ")
                    .to_owned(),
            })
    };
    build(expression)?;
    build(&format!(r"\A(?:{expression})\z"))
}

/// The regular expression of a glob.
fn translate(glob: &str) -> Result<String, &'static str> {
    let mut out = String::from("(?s)");
    let mut rest = glob.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            '\\' => {
                let literal = rest.next().ok_or("a \\ stands at its end")?;
                out.push_str(&literal_text(literal));
            }
            '[' => {
                out.push('[');
                if rest.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                let mut empty = true;
                loop {
                    match rest.next().ok_or("a [ has no ]")? {
                        ']' if !empty => break,
                        ']' => return Err("a set is empty"),
                        '\\' => {
                            let literal = rest.next().ok_or("a \\ stands at its end")?;
                            out.push_str(&literal_text(literal));
                        }
                        '-' if !empty && rest.peek().is_some_and(|&next| next != ']') => {
                            out.push('-');
                        }
                        literal => out.push_str(&literal_text(literal)),
                    }
                    empty = false;
                }
                out.push(']');
            }
            literal => out.push_str(&literal_text(literal)),
        }
    }
    Ok(out)
}

/// A character that means itself, in a set and outside of one.
fn literal_text(c: char) -> String {
    regex::escape(c.encode_utf8(&mut [0; 4]))
}
