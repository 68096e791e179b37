// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the sandbox against a model of the system that keeps accounts.

mod life;
mod model;
mod quotas;
mod sessions;
