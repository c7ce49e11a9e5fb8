"""Pages and facts for reports."""
