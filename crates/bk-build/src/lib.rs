//! The contract of an image builder: request, events, outcome and errors.
