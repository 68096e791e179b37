// SPDX-License-Identifier: MIT OR Apache-2.0
//! The interfaces, by theme. docs/design/framework.md says what each is for.

pub(crate) mod cpu;
pub(crate) mod devices;
pub(crate) mod memory;
pub(crate) mod parent;
pub(crate) mod pd;
pub(crate) mod platform;
pub(crate) mod rom;
pub(crate) mod stream;
pub(crate) mod timer;
pub(crate) mod vm;
