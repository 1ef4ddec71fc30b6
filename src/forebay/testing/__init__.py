"""What an adapter must pass: one suite of pytest tests per port, for our adapters and for yours.

Subclass a contract in a test module and say with a fixture `place` where the thing lives:

    class TestMyQueue(QueueContract):
        @pytest.fixture
        def place(self, tmp_path):
            return MyQueuePlace(tmp_path)

The tests run on asyncio through anyio's pytest plugin. Import the modules of this package directly: importing the
package alone does not need pytest.
"""
