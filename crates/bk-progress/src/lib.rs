//! Renderers that draw build events: plain, rawjson and quiet.
