"""HTTP in, jobs out; visible job state in, HTTP out. pydantic and HTTP statuses stay in this room."""
