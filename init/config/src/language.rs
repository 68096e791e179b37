// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tables of the language: which nodes and attributes may stand where, and what their values are.
//!
//! `check.rs` walks a configuration beside them. What `later` marks belongs to the language but has no effect yet.

/// One type of node in one place.
#[derive(Debug)]
pub(crate) struct NodeKind {
    pub(crate) kind: &'static str,
    pub(crate) attributes: &'static [AttributeKind],
    pub(crate) content: Content,
    /// Whether several may stand side by side.
    pub(crate) many: bool,
    /// Whether it has no effect yet.
    pub(crate) later: bool,
}

/// What may stand inside a node.
#[derive(Debug)]
pub(crate) enum Content {
    Nodes(&'static [&'static NodeKind]),
    Anything,
}

/// One attribute of one type of node.
#[derive(Debug)]
pub(crate) struct AttributeKind {
    pub(crate) tag: &'static str,
    pub(crate) value: ValueKind,
    pub(crate) required: bool,
    pub(crate) later: bool,
}

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ValueKind {
    /// Text of at most so many bytes.
    Text(usize),
    /// Text of at most so many bytes, and not empty.
    Name(usize),
    Bool,
    Number,
    Signed,
    Size,
    Word(&'static [&'static str]),
}

use ValueKind::{Bool, Name, Number, Signed, Size, Text, Word};

/// Capacity of a session label in bytes.
pub(crate) const LABEL: usize = 160;
const NAME: usize = 64;

const fn may(tag: &'static str, value: ValueKind) -> AttributeKind {
    AttributeKind { tag, value, required: false, later: false }
}

const fn must(tag: &'static str, value: ValueKind) -> AttributeKind {
    AttributeKind { tag, value, required: true, later: false }
}

const fn later(tag: &'static str, value: ValueKind) -> AttributeKind {
    AttributeKind { tag, value, required: false, later: true }
}

/// A table entry; literals, so that the compiler makes statics of the nested ones.
macro_rules! node {
    ($many:literal, $later:literal, $kind:literal, $attributes:expr, $nodes:expr) => {
        NodeKind {
            kind: $kind,
            attributes: const { $attributes },
            content: Content::Nodes(const { $nodes }),
            many: $many,
            later: $later,
        }
    };
}

/// At most one such node.
macro_rules! one {
    ($($table:tt)*) => { node!(false, false, $($table)*) };
}

/// Any number of such nodes.
macro_rules! many {
    ($($table:tt)*) => { node!(true, false, $($table)*) };
}

/// At most one such node, without effect yet.
macro_rules! one_later {
    ($($table:tt)*) => { node!(false, true, $($table)*) };
}

/// Any number of such nodes, without effect yet.
macro_rules! many_later {
    ($($table:tt)*) => { node!(true, true, $($table)*) };
}

const REWRITING: &[AttributeKind] = &[
    may("label", Text(LABEL)),
    may("identity", Text(LABEL)),
    may("resource", Text(LABEL)),
    may("prepend_resource", Text(LABEL)),
];
static PARENT: NodeKind = many!("parent", REWRITING, &[]);
static ANY_CHILD: NodeKind = many!("any-child", REWRITING, &[]);
static LOCAL: NodeKind = many!("local", REWRITING, &[]);
static CHILD: NodeKind = many!(
    "child",
    &[
        must("name", Name(NAME)),
        may("label", Text(LABEL)),
        may("identity", Text(LABEL)),
        may("resource", Text(LABEL)),
        may("prepend_resource", Text(LABEL)),
    ],
    &[]
);
const TARGETS: &[&NodeKind] = &[&PARENT, &CHILD, &ANY_CHILD, &LOCAL];

static ROUTED_SERVICE: NodeKind = many!(
    "service",
    &[
        must("name", Name(NAME)),
        may("label", Text(LABEL)),
        may("label_prefix", Text(LABEL)),
        may("label_suffix", Text(LABEL)),
        may("label_last", Text(LABEL)),
        may("unscoped_label", Text(LABEL)),
    ],
    TARGETS
);
static ANY_SERVICE: NodeKind = many!("any-service", &[], TARGETS);
const RULES: &[&NodeKind] = &[&ROUTED_SERVICE, &ANY_SERVICE];

static SERVICE_NAME: NodeKind = many!("service", &[must("name", Name(NAME))], &[]);
static CONTENT: NodeKind =
    NodeKind { kind: "config", attributes: &[], content: Content::Anything, many: false, later: false };

static START: NodeKind = many!(
    "start",
    &[
        must("name", Name(NAME)),
        may("version", Text(80)),
        may("caps", Number),
        may("ram", Size),
        may("awaited", Bool),
        later("priority", Signed),
        later("managing_system", Bool),
        later("ld", Bool),
    ],
    &[
        &one!("binary", &[must("name", Name(LABEL))], &[]),
        &one!("provides", &[], &[&SERVICE_NAME]),
        &one!("route", &[], RULES),
        &CONTENT,
        &one!("exit", &[may("propagate", Bool)], &[]),
        &one_later!("heartbeat", &[may("restart_after_skipped", Number)], &[]),
        &one_later!(
            "affinity",
            &[may("xpos", Number), may("ypos", Number), may("width", Number), may("height", Number)],
            &[]
        ),
        &many_later!("resource", &[must("name", Word(&["RAM", "CAP"])), must("quantum", Size)], &[]),
    ]
);

static POLICY_TARGET: NodeKind = one!("child", &[must("name", Name(NAME)), may("label", Text(LABEL))], &[]);
static OFFERED_SERVICE: NodeKind = many_later!(
    "service",
    &[must("name", Name(NAME))],
    &[
        &many!(
            "policy",
            &[may("label", Text(LABEL)), may("label_prefix", Text(LABEL)), may("label_suffix", Text(LABEL))],
            &[&POLICY_TARGET]
        ),
        &one!("default-policy", &[], &[&POLICY_TARGET]),
    ]
);

static REPORT: NodeKind = one_later!(
    "report",
    &[
        may("ids", Bool),
        may("requested", Bool),
        may("provided", Bool),
        may("session_args", Bool),
        may("child_ram", Bool),
        may("child_caps", Bool),
        may("init_ram", Bool),
        may("init_caps", Bool),
        may("delay_ms", Number),
        may("buffer", Size),
    ],
    &[]
);

/// Words of `on_all_exited`.
pub(crate) const ON_ALL_EXITED: &[&str] = &["stay", "poweroff", "exit"];

/// The top-level node.
pub(crate) static CONFIG: NodeKind = one!(
    "config",
    &[
        may("version", Text(64)),
        may("verbose", Bool),
        may("on_all_exited", Word(ON_ALL_EXITED)),
        later("prio_levels", Number),
        later("ld_verbose", Bool),
        later("generate_xml", Bool),
    ],
    &[
        &one!("parent-provides", &[], &[&SERVICE_NAME]),
        &one!("default-route", &[], RULES),
        &one!("default", &[may("caps", Number), may("ram", Size)], &[]),
        &START,
        &many!("resource", &[must("name", Word(&["RAM", "CAP"])), must("preserve", Size)], &[]),
        &one_later!("affinity-space", &[may("width", Number), may("height", Number)], &[]),
        &REPORT,
        &one_later!("heartbeat", &[may("rate_ms", Number)], &[]),
        &many_later!("alias", &[must("name", Name(NAME)), must("child", Name(NAME))], &[]),
        &OFFERED_SERVICE,
    ]
);
