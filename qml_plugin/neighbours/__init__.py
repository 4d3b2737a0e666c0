"""What a person is shown who asks which past patterns were like one: the nearest, and what happened next."""
