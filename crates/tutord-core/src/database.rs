//! The [`Database`] trait: all calls of an adapter.

use crate::operations::Operations;
use crate::store::Store;

/// A database: the store and the operations. An `Arc<dyn Database>` coerces to `Arc<dyn Store>` and to
/// `Arc<dyn Operations>`.
pub trait Database: Store + Operations {}
impl<T: Store + Operations> Database for T {}
