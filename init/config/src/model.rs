// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a configuration says.

use alloc::string::String;
use alloc::vec::Vec;

use cloister_hid::Position;

/// A configuration of init. Defaults are already put in: each [`Start`] says all that holds for its child.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Copied into the state report.
    pub version: String,
    /// Whether to log children, quotas and services as they come and go.
    pub verbose: bool,
    /// What to do when the last awaited child has exited.
    pub on_all_exited: OnAllExited,
    /// Bytes of RAM that init keeps for itself.
    pub keep_ram: u64,
    /// Capabilities that init keeps for itself.
    pub keep_caps: u64,
    /// Services that children may have from init's parent.
    pub parent_provides: Vec<String>,
    /// The children, in the order in which they are started; names are unique.
    pub starts: Vec<Start>,
}

/// What to do when the last awaited child has exited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnAllExited {
    /// Nothing; init waits for another configuration.
    #[default]
    Stay,
    /// The machine is powered off, if the parent gives init a Platform session.
    PowerOff,
    /// init exits itself.
    Exit,
}

/// One child.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Unique name; the first part of the labels of its sessions.
    pub name: String,
    /// A change restarts the child.
    pub version: String,
    /// Where its name stands in the configuration.
    pub position: Position,
    /// RAM assigned to it, in bytes.
    pub ram: u64,
    /// Capabilities assigned to it.
    pub caps: u64,
    /// Label of the ROM with its program.
    pub binary: String,
    /// Services that it may announce.
    pub provides: Vec<String>,
    /// Where its sessions go.
    pub route: Route,
    /// The text of its ROM `config`, if the start node has it.
    pub config: Option<String>,
    /// Whether its exit is an exit of init.
    pub propagate_exit: bool,
    /// Whether [`Config::on_all_exited`] waits for it.
    pub awaited: bool,
}

/// Where sessions go: the first rule that matches counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// One rule: sessions that it matches go to the first of its targets that can serve them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Where the rule stands in the configuration.
    pub position: Position,
    /// The service; `None` is any service.
    pub service: Option<String>,
    /// Which labels it is for.
    pub selector: Selector,
    /// Who may serve.
    pub targets: Vec<Target>,
}

/// Which labels a rule is for; each part that is there must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// The label that the child gave is this.
    pub label: Option<String>,
    /// The label that the child gave starts with this.
    pub prefix: Option<String>,
    /// The label that the child gave ends with this.
    pub suffix: Option<String>,
    /// The last part of the label is this.
    pub last: Option<String>,
    /// The label with the child's name in it is this.
    pub unscoped: Option<String>,
}

/// Who may serve, and under which label he sees the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Who.
    pub to: To,
    /// Where the target stands in the configuration.
    pub position: Position,
    /// Replaces the label.
    pub label: Option<String>,
    /// Replaces all parts of the label but the last.
    pub identity: Option<String>,
    /// Replaces the last part of the label.
    pub resource: Option<String>,
    /// Put in front of the last part of the label.
    pub prepend_resource: Option<String>,
}

/// Who may serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// init's parent.
    Parent,
    /// This child.
    Child(String),
    /// The only child that provides the service.
    AnyChild,
    /// The runtime environment itself (a program that uses the sandbox library).
    Local,
}
