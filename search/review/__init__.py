"""What came out: the front, its charts, tables and the report."""
