// SPDX-License-Identifier: MIT OR Apache-2.0
//! Labels: who asks. `grandparent -> child -> what`, the last part names the resource.

use crate::objects::Thing;
use alloc::string::{String, ToString};

/// The last part of a label.
pub(crate) fn last(label: &str) -> &str {
    label.rsplit("->").next().unwrap_or(label).trim()
}

/// Who an object belongs to, for people.
pub(crate) fn of(object: Option<&Thing>) -> String {
    match object {
        Some(Thing::Pd(pd)) => pd.label.clone(),
        Some(Thing::Cpu(cpu)) => cpu.label.clone(),
        Some(Thing::Vm(vm)) => vm.label.clone(),
        Some(Thing::Log(log)) => log.label.clone(),
        Some(Thing::Platform(platform)) => platform.label.clone(),
        _ => "?".to_string(),
    }
}
