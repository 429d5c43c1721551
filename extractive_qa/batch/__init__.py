KINDS = ("jsonl", "csv", "parquet")  # of files of answers
