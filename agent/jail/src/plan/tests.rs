//! Specs in, plans out.

use super::*;
