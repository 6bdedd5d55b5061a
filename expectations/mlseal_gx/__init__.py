"""Great Expectations under mlseal: Expectations for clinical tables, and the stage that makes evidence of it."""
