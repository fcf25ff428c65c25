"""The demonstrated side: one file, one method, one paper."""
