//! Model checks of the protocol.
