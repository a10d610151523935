"""What is wrong with preference data, and a clean copy; nothing that training needs."""
