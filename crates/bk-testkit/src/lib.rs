//! Test support: fake daemon, tree fixtures, conformance suite and live-daemon handles.
