// SPDX-License-Identifier: MIT OR Apache-2.0
//! Against a model, and by several cores at once.

#[cfg(feature = "loom")]
mod concurrent;
#[cfg(not(feature = "loom"))]
mod model;
