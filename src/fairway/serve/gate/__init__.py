"""What stands before every route: who asks, how large and slow a request may be, is there room."""
