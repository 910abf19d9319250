"""HAProxy, moved through its runtime API and reloaded only when its shape has to change."""
