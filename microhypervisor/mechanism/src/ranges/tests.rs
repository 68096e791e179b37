// SPDX-License-Identifier: MIT OR Apache-2.0
//! Against a model.

#[cfg(not(feature = "loom"))]
mod model;
